-- Turns tasks into 32 hash partitions by user_id while the service runs. See docs/growing.md for its use and
-- locks. Run it with psql as the owner of the table, not in a transaction:
--
--   psql "$MIGRATION_DATABASE_URL" -v ON_ERROR_STOP=1 -f db/partition.sql
--
-- After a failure run it again: it continues.

set lock_timeout = '2s';
set client_min_messages = warning;
set default_transaction_isolation = 'read committed';
-- Limits of the database or the role are for requests.
do $$
begin
  perform set_config(name, '0', false) from pg_settings
  where name in ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout');
end $$;

-- 1. Create an empty partitioned copy, and a trigger that repeats every later change there.
do $$
declare
  columns text := (
    select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
    where attrelid = 'tasks'::regclass and attnum > 0 and not attisdropped
  );
  held record;
  others text;
begin
  if (select relkind = 'p' from pg_class where oid = 'tasks'::regclass) then
    raise exception 'tasks is partitioned already';
  end if;
  if (select pg_get_userbyid(relowner) <> current_user from pg_class where oid = 'tasks'::regclass) then
    raise exception 'run this as the owner of tasks: %',
      (select pg_get_userbyid(relowner) from pg_class where oid = 'tasks'::regclass);
  end if;
  select string_agg(object, ', ' order by object) into others from (
    select 'view ' || r.ev_class::regclass as object
    from pg_depend d join pg_rewrite r on r.oid = d.objid
    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
      and d.refobjid = 'tasks'::regclass
    union
    select 'publication ' || quote_ident(pubname)
    from pg_publication p join pg_publication_rel r on r.prpubid = p.oid where r.prrelid = 'tasks'::regclass
    union
    select 'foreign key of ' || conrelid::regclass
    from pg_constraint where contype = 'f' and 'tasks'::regclass in (conrelid, confrelid)
    union
    select 'trigger ' || quote_ident(tgname)
    from pg_trigger where tgrelid = 'tasks'::regclass and not tgisinternal and tgname <> 'tasks_to_partitions'
    union
    select 'policy ' || quote_ident(polname) from pg_policy where polrelid = 'tasks'::regclass
    union
    select 'row-level security' from pg_class where oid = 'tasks'::regclass and relrowsecurity
    union
    select 'replica identity' from pg_class where oid = 'tasks'::regclass and relreplident <> 'd'
    union
    select 'storage parameters' from pg_class
    where reloptions is not null
      and oid in (select unnest(array[oid, reltoastrelid]) from pg_class where oid = 'tasks'::regclass)
    union
    select 'statistics of the column ' || quote_ident(attname)
    from pg_attribute
    where attrelid = 'tasks'::regclass and attnum > 0 and not attisdropped
      and (attstattarget >= 0 or attoptions is not null)
    union
    select 'tablespace' from pg_class where oid = 'tasks'::regclass and reltablespace <> 0
    union
    select 'unlogged' from pg_class where oid = 'tasks'::regclass and relpersistence = 'u'
    union
    select 'child table ' || inhrelid::regclass from pg_inherits where inhparent = 'tasks'::regclass
    union
    select 'function ' || objid::regprocedure
    from pg_depend
    where classid = 'pg_proc'::regclass and (
      refclassid = 'pg_class'::regclass and refobjid = 'tasks'::regclass
      or refclassid = 'pg_type'::regclass
        and refobjid in (select unnest(array[oid, typarray]) from pg_type where typrelid = 'tasks'::regclass)
    )
    union
    select 'rights on the column ' || quote_ident(attname)
    from pg_attribute where attrelid = 'tasks'::regclass and attacl is not null and not attisdropped
  ) belonging;
  if others is not null then
    raise exception 'these belong to tasks, and would stay with the old table: %', others;
  end if;
  if to_regclass('tasks_partitioned') is not null then
    return;
  end if;

  create table tasks_partitioned (like tasks including all) partition by hash (user_id);
  execute format('comment on table tasks_partitioned is %L', obj_description('tasks'::regclass, 'pg_class'));
  for n in 0..31 loop
    execute format(
      'create table %I partition of tasks_partitioned for values with (modulus 32, remainder %s)',
      'tasks_p' || lpad(n::text, 2, '0'), n
    );
  end loop;

  -- Default privileges may have opened the new tables to other roles. Rights are needed on the parent table only, not on
  -- its partitions.
  for held in
    select distinct c.oid::regclass as relation, coalesce(quote_ident(r.rolname), 'public') as role
    from pg_class c
    cross join aclexplode(c.relacl) a
    left join pg_roles r on r.oid = a.grantee
    where c.oid in (select relid from pg_partition_tree('tasks_partitioned')) and a.grantee <> c.relowner
  loop
    execute format('revoke all on %s from %s', held.relation, held.role);
  end loop;
  for held in
    select a.privilege_type, a.is_grantable, coalesce(quote_ident(r.rolname), 'public') as role
    from pg_class c
    cross join aclexplode(c.relacl) a
    left join pg_roles r on r.oid = a.grantee
    where c.oid = 'tasks'::regclass and a.grantee <> c.relowner
  loop
    execute format(
      'grant %s on tasks_partitioned to %s%s', held.privilege_type, held.role,
      case when held.is_grantable then ' with grant option' else '' end
    );
  end loop;

  -- The trigger runs as the owner, because the service's role has no rights on tasks_partitioned.
  execute format(
    $function$
      create function tasks_to_partitions() returns trigger
      language plpgsql security definer set search_path from current as $body$
      begin
        if tg_op = 'DELETE' then
          delete from tasks_partitioned where user_id = old.user_id and id = old.id;
        else
          insert into tasks_partitioned (%1$s) values (new.*)
          on conflict (user_id, id) do update set (%1$s) = row (new.*);
        end if;
        return null;
      end $body$
    $function$,
    columns
  );
  create trigger tasks_to_partitions after insert or update or delete on tasks
    for each row execute function tasks_to_partitions();
end $$;

-- 2. Copy the existing rows in short transactions. Each batch is locked, so that a deleted row is not copied afterwards. If
-- a row has changed meanwhile, the trigger's copy is kept.
do $$
declare
  last_user text := '';
  last_id uuid := '00000000-0000-0000-0000-000000000000';
  next_user text;
  next_id uuid;
begin
  loop
    begin
      with batch as materialized (
        select * from tasks
        where (user_id, id) > (last_user, last_id)
        order by user_id, id limit 10000
        for key share
      ), copied as (
        insert into tasks_partitioned select * from batch on conflict do nothing
      )
      select user_id, id into next_user, next_id from batch order by user_id desc, id desc limit 1;
    exception
      -- A write of the service locked the same rows in another order. Retry this batch.
      when deadlock_detected or lock_not_available then
        continue;
    end;
    exit when next_user is null;
    last_user := next_user;
    last_id := next_id;
    commit;
  end loop;
end $$;

analyze tasks_partitioned;

-- 3. Compare both tables in one snapshot.
do $$
begin
  if (select (count(*), sum(hashtextextended(t::text, 0))) from tasks t)
    is distinct from (select (count(*), sum(hashtextextended(t::text, 0))) from tasks_partitioned t)
  then
    raise exception 'the copy in partitions differs from tasks';
  end if;
end $$;

-- 4. Swap the names. Requests wait for some milliseconds.
begin;
lock table tasks in access exclusive mode;
drop trigger tasks_to_partitions on tasks;
drop function tasks_to_partitions();
alter table tasks rename to tasks_unpartitioned;
alter index tasks_user_id_id_pk rename to tasks_unpartitioned_pk;
alter index tasks_idempotency_key rename to tasks_unpartitioned_idempotency_key;
alter table tasks_partitioned rename to tasks;
alter index tasks_partitioned_pkey rename to tasks_user_id_id_pk;
alter index tasks_partitioned_user_id_idempotency_key_idx rename to tasks_idempotency_key;
commit;

-- When the service works as before: drop table tasks_unpartitioned;
