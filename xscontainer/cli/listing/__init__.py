"""The parts of ``xscontainer ps``: selection, cells, documents for programs, and the live view."""
