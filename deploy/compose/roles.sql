-- The roles of docs/roles.md, with the passwords that secrets.sh made. Runs once, when the database is made.
\set owner_password `cat /run/secrets/tasks/owner-password`
\set service_password `cat /run/secrets/tasks/service-password`

create role tasks_owner login password :'owner_password' nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
create role tasks_service login password :'service_password' nosuperuser nocreatedb nocreaterole noreplication nobypassrls;

revoke all on database tasks from public;
revoke all on schema public from public;
alter default privileges for role tasks_owner revoke execute on functions from public;

grant connect on database tasks to tasks_owner;
grant usage, create on schema public to tasks_owner;
grant connect on database tasks to tasks_service;
grant usage on schema public to tasks_service;
