from hypothesis import settings

# No deadlines: a busy machine is not a failing test.
settings.register_profile("chartae", deadline=None)
settings.load_profile("chartae")
