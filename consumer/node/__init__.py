"""What one machine has: slots, directories and volumes, images, cached contents, the holder of each slot.

Attempts and slots enter; nothing here decides how an attempt goes.
"""
