"""Herds on paper: up to a thousand groups and ten billion rows, planned by the very code that plans real ones."""
