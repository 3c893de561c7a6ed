"""Updates: a site's part in a round, checked."""
