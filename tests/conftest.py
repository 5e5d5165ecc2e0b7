"""For every suite: hypothesis sets no deadline, since a stall of the machine is no fault of ours."""

from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
