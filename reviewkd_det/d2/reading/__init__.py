"""Reading what a student's parts see and give, without touching the student."""
