"""The teacher's detections as labels of a student's own losses, on images without labels."""
