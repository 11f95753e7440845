"""What strangers send, fuzzed: each target takes bytes and fails when a promise about them breaks."""
