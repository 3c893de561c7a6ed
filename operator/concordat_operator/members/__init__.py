"""Members: whose word counts, by the Memberships of the hub's namespace."""
