"""Raw Arrow columns -> encoded Arrow columns, for a table and for one request alike.

Takes raw columns and entity rows; gives ids, numbers and histories as Arrow columns.
Must not know torch, Ray, HTTP or where the rows came from.
"""
