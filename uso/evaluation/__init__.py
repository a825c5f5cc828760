"""How good pictures are."""
