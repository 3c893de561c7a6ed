"""Sites: enrolment, heartbeat, quarantine."""
