"""The site itself: heartbeat and folders."""
