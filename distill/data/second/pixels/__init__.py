"""The compiled pixel work of second images: everything here runs without Python's lock.

One function a kind, all with the same arguments; packing calls it for one face, the loader for the
rows of a batch, so both modes draw the same numbers and the same pixels from the same key.

Images are (S, S, 3) uint8, points (5, 2) float32. Lengths are in units of the distance between the
eyes wherever they are not called pixels (see `face.Plane`).
"""
