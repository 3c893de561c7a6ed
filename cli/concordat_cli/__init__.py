"""The command line of Concordat: the demo federation, embedded clusters, and rounds at a glance."""
