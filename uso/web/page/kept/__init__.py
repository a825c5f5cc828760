"""What people keep: their pictures, the prompts of these, and presets.

gallery.py    "Your pictures", and what it triggers
events.py     what happens there
tiles.py      its HTML
presets.py    the fields under names
"""
