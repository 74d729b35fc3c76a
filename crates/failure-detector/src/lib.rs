//! failure-detector.
