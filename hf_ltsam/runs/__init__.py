"""The run folder and all that reads one: record, identity, card, report, Hub, shifted tests, sharpness."""
