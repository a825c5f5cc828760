"""The left column of the page: what goes into a picture, and the bar with Generate.

column.py      its components, and which event each one triggers
events.py      what these events do
pieces.py      its HTML
aspects.py     sizes of usual shapes
views.py       references as the model sees them
"""
