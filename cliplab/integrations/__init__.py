"""How is a clipper put into somebody else's trainer? One module a framework, imported by its name.

May use: checks, clipper, methods, history.
Makes numbers: no.
"""
