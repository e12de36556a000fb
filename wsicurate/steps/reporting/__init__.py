"""What a report says: each module gathers one part of the page from a store."""
