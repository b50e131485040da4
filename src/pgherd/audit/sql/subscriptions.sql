-- subscriptions
SELECT s.subname AS name, d.datname AS database, s.subenabled AS enabled, s.subslotname AS slot,
    s.subpublications AS publications, s.subconninfo AS conninfo
FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
