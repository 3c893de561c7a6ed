"""A round for people: as a picture."""
