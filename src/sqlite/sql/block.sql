SELECT entries FROM facet_blocks WHERE block_id = ?1;
