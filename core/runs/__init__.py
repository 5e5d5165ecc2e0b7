"""What a run writes and what is said of it: folder, record, scores, verdict, report; several runs for one result."""
