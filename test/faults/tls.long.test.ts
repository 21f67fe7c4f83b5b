import { faultKindsOver } from './schedule.js'
import { testFaults } from './short-form.js'

testFaults('every kind of fault once, under load over TLS', 'tls', faultKindsOver('tls'))
