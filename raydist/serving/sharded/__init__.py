"""Search of a service's indexes by shards: replicas that have opened some segments each."""
