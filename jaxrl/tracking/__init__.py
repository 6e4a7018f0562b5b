"""The journal of a sweep, and what carries it to a tracker."""
