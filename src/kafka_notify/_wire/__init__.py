"""The contents of records as values: headers, hops, payloads, dead letters and pauses."""
