import { testFaults } from './short-form.js'

// Only these faults depend on the transport.
testFaults('every way to break a connection once, under load over plain text', 'plain', [
  'connections cut',
  'connections closed at once',
  'network silent',
  'backends terminated'
])
