"""Nodes, what models ask of them, and worker keys that are bound to models."""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'nodes',
        sa.Column('name', sa.String(length=63), primary_key=True),
        sa.Column('instance', sa.String(length=64), nullable=False),
        sa.Column('key_id', sa.String(length=32), nullable=False),
        sa.Column('report', sa.JSON(), nullable=False),
        sa.Column('draining', sa.Boolean(), nullable=False),
        sa.Column('left', sa.Boolean(), nullable=False),
        sa.Column('first_heard_at', sa.BigInteger(), nullable=False),
        sa.Column('heard_at', sa.BigInteger(), nullable=False),
    )
    op.add_column('models', sa.Column('gpu_memory_bytes', sa.BigInteger(), nullable=True))
    op.add_column('models', sa.Column('node_labels', sa.JSON(), nullable=True))
    op.add_column('api_keys', sa.Column('models', sa.JSON(), nullable=True))
    op.add_column('tasks', sa.Column('key_id', sa.String(length=32), nullable=True))
    # Each model's own line in the queue: what fits a slot is found without a walk past what does not.
    queued = sa.text("state = 'queued'")
    op.create_index('tasks_queue_of_model', 'tasks', ['kind', 'model_id', sa.literal_column('priority DESC'), 'seq', 'not_before'], unique=False, sqlite_where=queued, postgresql_where=queued)
