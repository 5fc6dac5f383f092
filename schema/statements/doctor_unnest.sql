-- Expand arrays of uuid and jsonb side by side, the widest form of a batch.
SELECT count(*) FROM unnest(
  '{{00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000001}}'::text::uuid[],
  '{{"1","2"}}'::text::jsonb[]) AS u(id, doc) WHERE u.doc IS NOT NULL
