"""What records hold: headers, hops, payloads, dead letters and pauses, as values."""
