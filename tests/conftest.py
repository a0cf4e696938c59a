"""What all tests share: the marker of the statements that clients rely on."""

pytest_plugins = ["tests.behaviour.plugin"]
