"""What people keep: their pictures, the prompts of these, saved styles, and presets.

gallery.py    "Your pictures", and what it triggers
events.py     what happens there
tiles.py      its HTML
shelf.py      the shelf of saved styles (`../styles.py`)
presets.py    the fields under names
"""
