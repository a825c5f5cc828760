"""What trains each part of the demo model."""
