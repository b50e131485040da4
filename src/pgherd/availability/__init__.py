"""Keeping groups of replicas writable: watching nodes, fencing, letting a standby take over, switching over; drills."""
