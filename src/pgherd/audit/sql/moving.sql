-- moves under way
SELECT shard, incoming, pgherd.move_name(shard)::text AS name FROM pgherd.moving
