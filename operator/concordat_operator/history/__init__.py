"""An end to everything: which ended rounds and old releases go, and what goes with them."""
