"""Builds the supplemental pack: ``python -m rpm.pack``, or ``make pack``.

release    what is built: version, target interpreter, names, uuid
tools      programs that are run, and where they come from
carried    the pinned libraries, checked and unpacked, and the list of them
payload    the files of the package xscontainer as they lie on a host
packages   RPMs of it
signing    the key, and signatures with it
medium     update.xml, repository and ISO
"""
