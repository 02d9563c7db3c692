"""Retention by kind of data, the id of the request that brought a task, and indexes for long lists."""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

_KINDS = ('input', 'output', 'log')


def upgrade() -> None:
    for kind in _KINDS:
        op.add_column('models', sa.Column(f'{kind}_retention_seconds', sa.Float(), nullable=True))

    op.add_column('tasks', sa.Column('request_id', sa.String(length=64), nullable=True))
    for kind in _KINDS:
        op.add_column('tasks', sa.Column(f'{kind}_expires_at', sa.BigInteger(), nullable=True))
        op.add_column('tasks', sa.Column(f'{kind}_purged_at', sa.BigInteger(), nullable=True))
    # What was kept, or gone, all together is so for each kind.
    op.execute(
        'UPDATE tasks SET '
        + ', '.join(f'{kind}_expires_at = expires_at, {kind}_purged_at = purged_at' for kind in _KINDS)
        + ' WHERE expires_at IS NOT NULL OR purged_at IS NOT NULL'
    )
    op.drop_index('tasks_expiry', table_name='tasks')
    op.drop_column('tasks', 'expires_at')
    op.drop_column('tasks', 'purged_at')
    for kind in _KINDS:
        due = sa.text(f'{kind}_purged_at IS NULL AND {kind}_expires_at IS NOT NULL')
        op.create_index(f'tasks_{kind}_expiry', 'tasks', [f'{kind}_expires_at'], unique=False, sqlite_where=due, postgresql_where=due)

    if op.get_bind().dialect.name == 'postgresql':
        # Ids are ordered by their bytes, as on SQLite, whatever language the database was made with.
        op.alter_column('models', 'human_readable_id', type_=sa.String(length=128, collation='C'), existing_nullable=False)

    op.create_index('tasks_of_owner_by_state', 'tasks', ['owner_id', 'state', 'seq'], unique=False)
    op.create_index('tasks_of_model_by_state', 'tasks', ['model_id', 'state', 'seq'], unique=False)
    # Again, with one column more: what is due can be counted without a look at the rows.
    queued = sa.text("state = 'queued'")
    op.drop_index('tasks_queue', table_name='tasks')
    op.create_index('tasks_queue', 'tasks', ['kind', sa.literal_column('priority DESC'), 'seq', 'not_before'], unique=False, sqlite_where=queued, postgresql_where=queued)
    op.create_index('idempotency_by_age', 'idempotency', ['created_at'], unique=False)
