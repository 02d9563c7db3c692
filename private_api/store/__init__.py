"""The database: tables, their migrations, and one module of questions and changes per noun.

Every change that may race is a conditional UPDATE, and every comparison of times is made by the
database's own clock. Nothing here knows HTTP.
"""
