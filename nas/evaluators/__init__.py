"""What measures candidates: tables and real trainings."""
