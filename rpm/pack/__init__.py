"""Build the supplemental pack: ``python -m rpm.pack``, or ``make pack``.

release    version, target interpreter, names and uuid of the pack
tools      the programs that the build runs
carried    the pinned libraries, checked and unpacked, and their SBOM
payload    the files of the package xscontainer as they lie on a host
stage      payload and libraries together
packages   the RPMs
signing    the key, and signatures with it
medium     update.xml, repository and ISO
"""
