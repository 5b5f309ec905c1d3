"""The parts of one VM's monitor (:mod:`xscontainer.monitoring.monitor`), which see nothing of other VMs."""
