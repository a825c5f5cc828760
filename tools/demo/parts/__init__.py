"""The parts of the demo model that a user of released weights never trains, learned from nothing on drawn data."""
