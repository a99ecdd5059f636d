"""What detection and classification do with any method: build, weigh, report, describe."""
