"""Drawn pictures: subjects in places, in styles."""
