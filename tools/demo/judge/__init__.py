"""How good the demo model is."""
