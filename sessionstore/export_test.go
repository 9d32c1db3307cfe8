package sessionstore

// Evicting returns of how many principals sessions are being evicted.
func (m *Manager) Evicting() int {
	m.evictions.mu.Lock()
	defer m.evictions.mu.Unlock()
	return len(m.evictions.queues)
}
